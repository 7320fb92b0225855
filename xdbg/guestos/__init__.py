"""What a guest kernel's memory means: its processes, their address spaces, the names of its addresses.

It sees a guest through two things only, its memory (`memory`) and its symbols (`symbols`, `structures`). A kernel that is known
has a profile (`profile`): `tasks` for the bundled guest of that name, `bare` for any other.
"""
