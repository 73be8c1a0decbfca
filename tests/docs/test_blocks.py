"""How tests find and run the code blocks of pages."""

import traceback

import pytest

from doubles.blocks import Block, list_blocks, run_python_blocks

PAGE = """# A page

```console
$ cowbird --help
```

```python
first = 1
```

````markdown
```python
nested = 1
```
````

~~~python title="x"
second = first + 1
~~~

```
plain
```
"""


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def test_blocks_stand_in_order_with_their_lines(page):
    assert [(block.language, block.line) for block in list_blocks(page)] == [
        ("console", 4),
        ("python", 8),
        ("markdown", 12),
        ("python", 18),
        ("", 22),
    ]
    assert list_blocks(page, "console") == [Block("console", "$ cowbird --help\n", 4)]


def test_python_blocks_run_as_one_script(page):
    names = run_python_blocks(page)
    assert (names["first"], names["second"]) == (1, 2)
    assert "nested" not in names


def test_an_error_names_the_page_and_its_line(page):
    page.write_text(PAGE.replace("second = first + 1", "second = gone"))
    with pytest.raises(NameError) as error:
        run_python_blocks(page)
    last = traceback.extract_tb(error.value.__traceback__)[-1]
    assert (last.filename, last.lineno) == (str(page), 18)
