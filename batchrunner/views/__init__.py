"""Views of a run for people, from its checkpoint alone: status, dead letters, logs, garbage."""
