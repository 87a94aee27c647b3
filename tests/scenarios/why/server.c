// A server that is late to accept: after each connection it waits for a byte on its standard input.
// Built with frame pointers and debug information.

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

// The system call is made here and not in the C library, which has no frame pointers.
__attribute__((always_inline)) static inline long read_one(int fd, char *byte) {
    register long result __asm__("rax") = SYS_read;
    register long first __asm__("rdi") = fd;
    register char *second __asm__("rsi") = byte;
    register long third __asm__("rdx") = 1;
    __asm__ volatile("syscall"
                     : "+r"(result)
                     : "r"(first), "r"(second), "r"(third)
                     : "rcx", "r11", "memory");
    return result;
}

__attribute__((noinline)) long save_state(void) {
    char byte = 0;
    long got = read_one(0, &byte);
    return got;
}

__attribute__((noinline)) long handle_request(int connection) {
    long got = save_state();
    close(connection);
    return got;
}

int main(int count, char **args) {
    if (count != 2)
        return 2;
    struct sockaddr_in here = {
        .sin_family = AF_INET,
        .sin_port = htons(atoi(args[1])),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) < 0 || listen(listener, 16) < 0) {
        perror("listen");
        return 1;
    }
    puts("listening");
    fflush(stdout);
    while (handle_request(accept(listener, NULL, NULL)) == 1)
        continue;
    return 0;
}
