"""What stands in the way of a motion, looked at before anything is computed."""
