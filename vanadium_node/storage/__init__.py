"""What outlives a process: private files, credentials directories, and the database of secrets."""
