"""One page a method, for every published pair of teacher and student."""
