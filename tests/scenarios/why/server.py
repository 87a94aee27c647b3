"""A server that is late to accept: each connection takes it 200 ms.

It sleeps, or it waits for a lock that another thread holds.
"""

import socket
import sys
import threading
import time

CAUSE = 0.2


def save_state():
    """Sleeps."""
    time.sleep(CAUSE)


def wait_for_lock():
    """Waits for a lock. Prints the id of the thread that holds it, and how long it waited."""
    lock = threading.Lock()
    held = threading.Event()

    def hold():
        with lock:
            held.set()
            time.sleep(CAUSE)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    began = time.monotonic_ns()
    with lock:
        print(holder.native_id, time.monotonic_ns() - began, flush=True)
    holder.join()


CAUSES = {"sleep": save_state, "lock": wait_for_lock}


def main(port, cause):
    """Handles one connection after the other."""
    listener = socket.create_server(("127.0.0.1", port))
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        cause()
        connection.close()


main(int(sys.argv[2]), CAUSES[sys.argv[1]])
