"""Conditions and printed lines of breakpoints, evaluated by the server."""


def test_probe(counter):
    counter.run("break square if x == 15 && total > 4")
    print(counter.run("info breakpoints"))
    stop = counter.cont()
    print(stop, counter.number("x"))
    print(counter.run("info breakpoints"))
    counter.run("delete")
    counter.run("set dprintf-style agent")
    counter.run(r'dprintf compute,"i=%d name=%s %c\n", i, name, name[0]')
    counter.run("break count.c:36 if i == 39") if 0 else None
    counter.run("tbreak print")
    counter.cont()
    print(counter.printed)
    print(counter.run("info breakpoints"))
    counter.run("maint set target-async on") if 0 else None
    counter.run("delete")
    counter.select(1)
    counter.run("break sys_write")
    print(counter.run("info breakpoints"))
    print(counter.cont())
    counter.run("delete")
    counter.run("inferior 2")
    print(counter.run("break sys_write"))
    print(counter.cont())
    assert 0
