"""Data for analysts and BI tools: Parquet files, CSV that a spreadsheet opens, named queries.

It only passes on what the published views show: a rate that is suppressed there is null here, and
counts by class are in no file. `columns` is the schema of the exported files, `parquet` writes
Parquet, `places` opens where files are written, `publishing` makes a place equal to the views,
`spreadsheet` writes CSV, and `named_queries` runs the files of sql/queries.

**The exported files.** The data set `satisfaction` has one row per facility and published period,
always of the newest revision. Its files are

    satisfaction/schema=1/span=day/facility=north-mall/month=2026-11/satisfaction.parquet

- `schema`: the version of the columns. A version only gets new columns; a column that changes its
  type or meaning is another version, so that a query over `schema=1` never breaks.
- `span` and `facility`: the columns `period` (`four-weeks` for `four weeks`) and `facility_id`, so
  that a reader skips files that it does not need. The folders have other names than the columns
  because readers guess types of folders: a facility `007` would become the number 7, and pyarrow
  refuses a column that is text in the file and something else in the path. With the columns in the
  file, each file is complete by itself, and nobody needs to know about partitions.
- `month`: of the last day of the period. A revision replaces one small file, and a file per month
  keeps their number low.

Each file is replaced as a whole: atomically in a folder, and by one PUT in S3. So a reader of one
file never sees a part of it. `satisfaction/schema=1/_export.json` tells whether all files belong
together: `is_complete` is false while an export changes files, and the content differs after each
export that changed something. A reader that finds the same content with `is_complete` true before
and after reading has read the state of one export. Its name begins with `_`, which readers of
Parquet skip.
"""
