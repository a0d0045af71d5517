"""What any project would need; imports no room."""
