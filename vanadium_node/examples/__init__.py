"""Programs that show how applications use the project."""
