/*
 * forker: a child that is a copy of it changes its own copy of a variable; another becomes the program counter.
 *
 * Ends with 0 if the copies were separate and both children ended as expected. Link: pie
 */
#include "program.h"

int value = 1;

int main(int argc, char *argv[])
{
    char *const counter[] = {"counter", "exec", "10", NULL};
    int copy, other, status;

    (void)argc, (void)argv;
    copy = fork();
    if (copy == 0) {
        value += 6;
        print("forker: pid %d is the copy, value %d\n", getpid(), value);
        return value;
    }
    other = fork();
    if (other == 0) {
        exec("/bin/counter", counter);
        return 98;
    }
    if (wait(copy, &status) != copy || status != 7)
        return 1;
    if (wait(other, &status) != other || status != 76)
        return 2;
    print("forker: both children are done, value %d\n", value);
    return value - 1;
}
