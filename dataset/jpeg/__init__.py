"""Between the bytes of image files and pixels."""
