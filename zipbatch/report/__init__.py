"""Tables, pages and pictures for people. Modules are imported one by one: the command line needs few of them."""
