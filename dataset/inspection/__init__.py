"""What a packed split holds: facts, damage, a contact sheet."""
