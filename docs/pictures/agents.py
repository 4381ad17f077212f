"""What browsers, and those who pretend to be one, send as `User-Agent`."""

WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)
LINUX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
MAC = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.6 Safari/605.1.15"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.6 Mobile/15E148 Safari/604.1"
)
BROWSERS = WINDOWS, IPHONE, LINUX, MAC
HOSTILE = (
    "W" * 4000,
    "Mozilla/5.0 " + "many words " * 300,
    "\u202egpj.exe Firefox on Linux \u2066evil\u2067",  # turns what follows round
    "<script>alert(1)</script><img src=x onerror=alert(1)>'\"&amp;",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466" * 60,  # a family, joined by what has no width
    "\u200b\u200b\u200b",  # nothing to be seen
    "Z\u0334\u0335\u0336\u0337\u0338\u0321\u0322" * 30,  # marks above and below
    "متصفح على حاسوب Linux 140.0",
    "line one\nline two\r\n\tline three",
    "",
)
