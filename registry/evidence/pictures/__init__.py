"""What a model was when it drew a picture, beside the picture or inside of it."""
