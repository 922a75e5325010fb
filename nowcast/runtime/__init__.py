"""Services of the machine: output files, signals, threads, processes, devices, memory, progress, compiled C."""
