"""The page in a browser: a query string becomes a question, the functions of the command line answer it.

`state` reads the address, `answer` asks and collects what is shown as records, `curve` places the lines of the picture,
`templates/` turn records into HTML, `app` speaks HTTP. None of them knows a formula.
"""
