"""The machine: outputs, signals, threads, processes, devices, memory, progress, compiled C."""
