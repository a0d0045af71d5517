"""Commands about what runs read and leave, beside the training itself."""
