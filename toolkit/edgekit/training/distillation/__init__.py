"""Teacher and student: how they are joined, what is asked of them, and the loss of a training on both."""
