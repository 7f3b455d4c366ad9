"""A market whose hidden states move risk only: its sessions, its best policies, its study."""
