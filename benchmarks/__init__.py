"""How fast batchrunner is, beside what else one would use for the same work."""
