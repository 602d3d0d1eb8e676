"""HTML templates of the pages, every value escaped. They are code because a notebook carries only modules."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from sac_kernel.core import strings

if TYPE_CHECKING:
    from jinja2.environment import TemplateModule

NO_VALUE = Markup('<span class="absent" title="{}">\u2013</span>').format(strings.NO_VALUE)
HEADING, PARAGRAPH = Markup("<h3>{}</h3>\n"), Markup("<p>{}</p>\n")
SOFT = Markup('<p class="soft">{}</p>\n')
STRONG, COMMAND = Markup("<p><strong>{}</strong></p>\n"), Markup("<pre><code>{}</code></pre>\n")
CODE, HASH = Markup("<code>{}</code>"), Markup('<code title="{}">{}</code>')

_CSS = """
:root{color-scheme:light dark;--page:#fff;--ink:#1f2328;--soft:#59636e;--line:#d8dee4;
--band:#f5f7f9;--own:#e8f2fb;--edge:#00795a;--wait:#8a5a00;--none:#b34700}
@media (prefers-color-scheme:dark){:root{--page:#14181d;--ink:#e3e8ed;--soft:#9aa6b2;--line:#343c45;
--band:#1b2128;--own:#16304a;--edge:#4cc9a0;--wait:#e8b44c;--none:#f08a4b}
figure img{filter:invert(.91) hue-rotate(180deg)}}*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);overflow-wrap:break-word;
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header,main,footer{max-width:1120px;margin:0 auto;padding:0 20px}header{padding-top:36px}
footer{padding:28px 20px 40px}h1{font-size:.95rem;font-weight:600;color:var(--soft);margin:0 0 12px}
h2{font-size:1.25rem;margin:44px 0 10px}h3{font-size:1rem;margin:26px 0 8px}
.verdict{border-left:6px solid var(--tone);padding:2px 0 2px 18px}
.edge{--tone:var(--edge)}.not-shown{--tone:var(--wait)}.none{--tone:var(--none)}
.word{color:var(--tone);font-weight:700;text-transform:uppercase;font-size:.85rem;margin:0}
.said{font-size:clamp(1.3rem,1rem + 1.6vw,1.9rem);font-weight:650;line-height:1.25;margin:6px 0}
.soft,.absent,figcaption,footer{color:var(--soft);font-size:.88rem}
.box{overflow-x:auto;border:1px solid var(--line);border-radius:8px}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:.86rem}
table{font-variant-numeric:tabular-nums}
th,td{padding:7px 10px;text-align:left;vertical-align:bottom;border-top:1px solid var(--line)}
thead th{border-top:0;font-weight:600;color:var(--soft);line-height:1.3}.n{text-align:right}
tr>:last-child{padding-right:16px}
tbody th{font-weight:400}tbody th,td{white-space:nowrap}td.long{white-space:normal;min-width:12em}
.tier th{background:var(--band);color:var(--soft);font-weight:600}
.tier span{position:sticky;left:8px}.own th,.own td{background:var(--own);font-weight:650}
figure{margin:0}figcaption{margin-top:8px}
figure img{display:block;width:100%;height:auto;border-radius:8px}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(235px,1fr));gap:2px 28px;margin:0}
dl div{border-bottom:1px solid var(--line);padding:6px 0;min-width:0}
dt,summary{color:var(--soft);font-size:.8rem}dd{margin:0;overflow-wrap:anywhere}
ul{padding-left:1.2em}.marks{list-style:none;padding:0;margin:10px 0;font-size:.92rem}
.marks b{font-size:.8rem;margin-right:6px}.marks .yes b{color:var(--edge)}.marks .no b{color:var(--none)}
summary{padding:8px 0}
pre{background:var(--band);border:1px solid var(--line);border-radius:8px;padding:14px;margin:0}
pre{overflow-x:auto}code{font:.88em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media (max-width:900px){.results tbody th{position:sticky;left:0;background:var(--page)}
.results tbody th{white-space:normal;min-width:9.5em}.results .own th{background:var(--own)}
.results .tier th{background:var(--band)}th,td{padding:6px 6px}
.results{font-size:.8rem}}
.asked{grid-template-columns:repeat(auto-fill,minmax(240px,1fr));margin:18px 0}.asked dd{font-size:.92rem}
nav ol{columns:3 230px;column-gap:28px;padding-left:1.4em;margin:0}a{color:inherit}
.part{border-top:1px solid var(--line)}.part summary{cursor:pointer;padding:12px 0;color:var(--ink)}
.part summary h2{display:inline;font-size:1.05rem;margin:0}.part>div{padding-bottom:20px;scroll-margin-top:60px}
.box{scrollbar-width:thin}.results{min-width:760px}
@media (max-width:640px){.results,.results tbody,.results tbody th{display:block;min-width:0}
.results thead{display:none}
.results tr{display:grid;grid-template-columns:5fr 5fr 8fr 4fr;border-top:1px solid var(--line);padding:6px 8px}
.results .own{background:var(--own)}.results .tier{background:var(--band)}
.results tbody th{grid-column:1/-1;position:static;font-weight:650}
.results th,.results td{border:0;padding:3px 4px;text-align:left}.results td.n{white-space:normal}
.results td::before{content:attr(title);display:block;color:var(--soft);font-size:.66rem;font-weight:400}
.results td::before{white-space:nowrap}
header,main,footer{padding:0 14px}
header{padding-top:18px}dl{grid-template-columns:1fr 1fr;gap:0 14px}.asked{grid-template-columns:1fr}
nav ol{columns:1}}
@media print{details>*{display:block}figure img{filter:none}.box{overflow:visible}}
"""

_MACROS = """
{% macro marks(items) %}
<ul class="marks">
{% for mark in items %}
<li class="{{ mark.tone }}"><b>{{ mark.sign }}</b> {{ mark.name }}: <span class="soft">{{ mark.found }}</span></li>
{% endfor %}
</ul>
{% endmacro %}

{% macro verdict(v) %}
<div class="verdict {{ v.tone }}">
<p class="word">{{ t.VERDICT.format(word=v.word) }}</p>
{% if v.learns %}
<p><strong>{{ t.SELF_TEST_TITLE }}</strong> {{ v.learns }}</p>
<p class="said">{{ t.ON_YOUR_BARS }}: {{ v.finding }}</p>
{% else %}
<p class="said">{{ v.finding }}</p>
{% endif %}
{% if v.judged %}
<p>{{ v.judged }}</p>
{% elif v.traded %}
<p>{{ t.TRADED }} <strong>{{ v.traded }}</strong></p>
{% endif %}
{% if v.headline %}
<p>{{ v.headline }}{% if v.costs %} {{ v.costs }}{% endif %}</p>
{% endif %}
{% for note in v.first %}
<p>{{ note }}</p>
{% endfor %}
</div>
{% if v.questions %}
<dl class="asked">
{% for item in v.questions %}
<div><dt>{{ item.question }}</dt><dd>{{ item.answer }}</dd></div>
{% endfor %}
</dl>
{% endif %}
{% if v.failed %}
<p><strong>{{ t.NOT_ALL_PASSED.format(**v.counts) }}</strong></p>
{{ marks(v.failed) }}
{% elif v.passed %}
<p><strong>{{ t.ALL_PASSED.format(**v.counts) }}</strong></p>
{% endif %}
<details><summary>{{ t.ABOUT }}</summary>
<p><strong>{{ t.MEANS }}</strong> {{ v.means[0] }}</p>
<p><strong>{{ t.MEANS_NOT }}</strong> {{ v.means[1] }}</p>
{% if v.passed %}
<p>{{ t.PASSED_TOO }}</p>
{{ marks(v.passed) }}
{% endif %}
{% if v.notes %}
<ul>
{% for note in v.notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
{% endif %}
</details>
{% endmacro %}

{% macro table(v) %}
{% if v.heading %}
<h3>{{ v.heading }}</h3>
{% endif %}
{% if v.note %}
<p class="soft">{{ v.note }}</p>
{% endif %}
<div class="box" tabindex="0"><table class="{{ v.look }}">
<thead><tr>
{%- for title in v.columns -%}
<th scope="col"{% if loop.index0 in v.numeric %} class="n"{% endif %}>{{ title }}</th>
{%- endfor -%}
</tr></thead>
{% for group in v.groups %}
<tbody>
{% if group.title %}
<tr class="tier"><th scope="rowgroup" colspan="{{ v.columns | length }}"><span>{{ group.title }}</span></th></tr>
{% endif %}
{% for row in group.rows %}
<tr{% if row.own %} class="own"{% endif %}>
{%- for cell in row.cells -%}
{%- if loop.first and v.named -%}
<th scope="row">{{ cell.text }}</th>
{%- else -%}
<td{% if cell.look %} class="{{ cell.look }}"{% endif %}\
{% if v.labels %} title="{{ v.labels[loop.index0] }}"{% endif %}>{{ cell.text }}</td>
{%- endif -%}
{%- endfor -%}
</tr>
{% else %}
<tr><td colspan="{{ v.columns | length }}" class="soft">{{ t.NOT_RUN }}</td></tr>
{% endfor %}
</tbody>
{% endfor %}
</table></div>
{% endmacro %}

{% macro figure(v) %}
<figure><picture>{% if v.narrow %}<source media="(max-width:640px)" srcset="data:image/png;base64,{{ v.narrow }}">\
{% endif %}<img src="data:image/png;base64,{{ v.png }}" width="{{ v.width }}" \
height="{{ v.height }}" alt="{{ v.alt }}"></picture>
{%- if v.caption -%}<figcaption>{{ v.caption }}</figcaption>{%- endif -%}
</figure>
{% endmacro %}

{% macro findings(items) %}
<ul>
{% for item in items %}
<li>{{ item.job }}<strong>{{ item.sign }}</strong> {{ item.cause }} {{ item.remedy }}</li>
{% endfor %}
</ul>
{% endmacro %}

{% macro facts(v) %}
{% if v.short %}
<dl>
{% for name, value in v.short %}
<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endfor %}
</dl>
{% endif %}
{% for name, inner in v.long %}
<details><summary>{{ name }}</summary>
{{ inner }}</details>
{% endfor %}
{% endmacro %}
"""

_REPORT = """<!DOCTYPE html>
<html lang="{{ t.LANGUAGE }}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{% include "css" %}</style>
</head>
<body>
<header><h1>{{ title }}</h1>
{{ verdict }}</header>
<main>
{{ head }}
<nav aria-label="{{ t.CONTENTS }}"><h2>{{ t.CONTENTS }}</h2>
<ol>
{% for id, name, body in sections %}
<li><a href="#{{ id }}">{{ name }}</a></li>
{% endfor %}
</ol></nav>
{% for id, name, body in sections %}
<details class="part"><summary><h2>{{ name }}</h2></summary>
<div id="{{ id }}">
{{ body }}</div></details>
{% endfor %}
</main>
<footer><p>{{ t.FOOTER }}</p></footer>
</body>
</html>
"""


def report(**values: Any) -> str:  # noqa: ANN401  # the template's variables
    """Return the report's page with its values filled in and escaped."""
    return _environment().get_template("report").render(values)


def filled(template: str, **values: Any) -> str:  # noqa: ANN401  # the template's variables
    """Return any other template with its values filled in and escaped."""
    return _environment().from_string(template).render(values)


def fragment(name: str, value: Any) -> Markup:  # noqa: ANN401  # the macro's argument
    """Return a part of the report, safe to insert."""
    return Markup(getattr(_macros(), name)(value))  # noqa: S704  # macros escape their input


@functools.cache
def _environment() -> Environment:
    texts = {"css": _CSS, "macros": _MACROS, "report": _REPORT}
    env = Environment(
        loader=DictLoader(texts),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.globals["t"] = strings
    return env


@functools.cache
def _macros() -> TemplateModule:
    return _environment().get_template("macros").module
