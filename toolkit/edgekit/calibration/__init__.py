"""What post-training passes share."""
