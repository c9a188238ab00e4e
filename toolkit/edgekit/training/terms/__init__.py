"""Terms of a distillation's loss, one file each."""
