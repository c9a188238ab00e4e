"""The one train loop with its terms: losses, distillation, batches, checkpoints."""
