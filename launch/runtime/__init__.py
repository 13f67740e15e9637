"""What any command runs on: Ray or one process, its workers and services, console and logs."""
