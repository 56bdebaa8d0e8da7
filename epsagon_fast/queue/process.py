"""Who a process is: a pid alone comes back, a pid with its start time does not."""


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 if it is not there or there is no /proc.

    Field 22 of /proc/<pid>/stat (proc_pid_stat(5)), counted behind the last ")", since the name before it may hold any.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    # A zombie has ended; it only waits to be reaped.
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
