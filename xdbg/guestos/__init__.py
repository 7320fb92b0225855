"""What a guest kernel's memory means: its processes, their address spaces, the names of its addresses.

It sees a guest through two things only, its memory (`memory`) and its files: symbols (`symbols`, `structures`) and
archives (`cpio`). A kernel that is known has a profile (`profile`): `tasks` for the bundled guest of that name, `bare`
for any other; `select` finds out which.
"""
