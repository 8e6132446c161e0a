"""Runs in a process of their own, with limits on time, memory and processor."""
