"""The main job on real data, on a CPU, in minutes."""
