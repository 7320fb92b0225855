/*
 * counter NAME ROUNDS: adds up what compute() makes of 1, 2, 3... in the global `total`, sleeping now and then.
 *
 * Made to be debugged: functions within functions, each with locals; a global to watch; and floating point, so that a
 * kernel that mixes up the registers of two counters is found out. Ends with total % 100.
 */
#include "program.h"

int total;
double mean;

static const char *name;

static int __attribute__((noinline)) square(int x)
{
    int result = x * x;

    return result;
}

static int __attribute__((noinline)) compute(int i)
{
    int squared = square(i);
    int rest = squared % 7;

    return i + rest;
}

static void __attribute__((noinline)) count(int rounds)
{
    for (int i = 1; i <= rounds; i++) {
        int value = compute(i);

        total += value;
        mean += (value - mean) / i;
        if (i % 10 == 0) {
            print("counter %s: round %d, total %d\n", name, i, total);
            sleep(1);
        }
    }
}

int main(int argc, char *argv[])
{
    int rounds = argc > 2 ? (int)parse_number(argv[2]) : 20;
    int thousandths;

    name = argc > 1 ? argv[1] : "?";
    count(rounds);
    thousandths = (int)(mean * 1000 + 0.5) - (int)((total * 1000.0) / rounds + 0.5);
    if (thousandths < -1 || thousandths > 1) {
        print("counter %s: mean is off by %d/1000\n", name, thousandths);
        return 99;
    }
    return total % 100;
}
