"""What any project would need; imports no other package of this one."""
