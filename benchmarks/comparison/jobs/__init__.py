"""What a user of each contestant writes; copied into an empty folder and started there."""
