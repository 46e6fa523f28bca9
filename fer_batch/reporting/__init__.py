"""The nightly report for people: HTML files with charts, and the table on the console.

It only shows what the tables hold. Figures, verdicts and what is suppressed are decided in
`satisfaction`, findings in `pipeline`. `loading` reads the database, `pages` turns the rows into
what a page shows, `actions` says what to do next, `wording` has the sentences, `formatting` the
numbers and days in them, `rendering` fills in the templates, and `store` writes the files.

**The report files.** A report is one file per capture day, about all facilities of all time zones.
Each run of that day rewrites it, whole and atomically, from the database. All files lie flat in
one folder, `FER_REPORT_DIR`, and under the prefix of `FER_REPORT_URL` if that is set:

- `index.html`: the days that have a report, newest first;
- `2026-11-29.html`: the report of a capture day, `YYYY-MM-DD.html`;
- `2026-11-29.north.html`: the sections of one group of facilities, `YYYY-MM-DD.PART.html`, where
  PART consists of a-z, 0-9 and hyphens. These files exist only if a report is split.

No other name is ever published; `store.FILE_NAME` matches them. All links are relative names of
these files, or fragments. A file has no script, no style attribute and no reference to another
host: it has one `<style>` element, whose SHA-256 is in the content security policy that the file
carries in a `<meta>` element.
"""
