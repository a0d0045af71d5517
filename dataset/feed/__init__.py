"""From a split to batches: order, crops, decoding processes, augmentation."""
