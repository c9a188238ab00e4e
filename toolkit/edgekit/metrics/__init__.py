"""mAP and the like."""
