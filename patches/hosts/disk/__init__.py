"""Models on disk: diffusers folders and single files, written in place under a rollback journal."""
