"""What every part needs of the operating system: files, threads, memory, messages."""
