"""Views of ``bpf/``: building its objects, loading them, reading their maps and events."""
