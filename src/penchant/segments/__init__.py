"""Rules to audiences to files."""
