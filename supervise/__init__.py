"""Processes of ours and of others: started, watched, restarted and stopped."""
