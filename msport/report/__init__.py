"""Shows results in the same way for every command. This package does not know what was measured.

`formatting` writes values as text, `table` lays out tables for a terminal and a page, `document` makes JSON, `page`
makes a self-contained page, and `chart` draws charts from a `frame`, a `scale` and the elements in `svg`.

The charts are drawn here because each library that was tried loses something. These take their colours from the page's
style sheet, which has a light and a dark theme; every mark has a name on hover without a script; axes may be
logarithmic, and values that are not finite have a place; the same report always gives the same page. Matplotlib writes
colours into each element and has no hover; it takes seconds to import and adds 80 MB of packages. pygal needs a script
for hover, by default from the network, and writes random ids. leather and charted have fixed colours and no logarithmic
axes. drawsvg and svg.py only write elements, which take 70 lines in `svg`.
"""
