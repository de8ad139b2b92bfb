`ppolicy status` begins with the health of the server, of every backend and of what checks depend on (list files,
GeoIP files, directories, p0f, dumps), a line for each problem; `ppolicy status --check` is made for monitoring. A
check module of a site's own says how it is by a method `status()`. All commands print JSON with `--json`, take
`-c` and have documented exit codes: 3 where no server is running, 4 where what was named is not there, 5 for a
problem. `ppolicy completion` completes commands and names of checks in bash, zsh and fish. Errors say what to do
next, a port that is taken is told with who has it, there are colours and progress bars on a terminal (`NO_COLOR`,
`--color`), and Ctrl-C or a pager that is left ends a command quietly. A command for a running server takes a tenth
of a second. ``ppolicy check`` and ``ppolicy reload`` look into the policy itself: names that nothing defines,
attributes that Postfix does not send, answers that are none, results that are compared as if they were codes,
attributes and ports as if they were numbers, options and functions that stand there twice, misspelt methods of
``factory``. ``ppolicy explain --port`` decides as if the request had come in at another of several ports.
