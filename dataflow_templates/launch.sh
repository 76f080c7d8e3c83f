#!/usr/bin/env bash
# Launches a build from the template that deploy.sh wrote.
#   dataflow_templates/launch.sh TEMPLATE REGION JOB NAME=VALUE ... [-- option of gcloud ...]
#   dataflow_templates/launch.sh gs://my-bucket/c4.json us-central1 c4-2019-18 \
#     input='gs://my-crawl/crawl-data/CC-MAIN-2019-18/segments/*/wet/*.warc.wet.gz' \
#     output=gs://my-bucket/corpus shards=2048 -- --max-workers=500 --disable-public-ips
# NAME is a parameter of dataflow_templates/metadata.json; the options are those of
# gcloud dataflow flex-template run.
set -euo pipefail
if [ "$#" -lt 4 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
template=$1 region=$2 job=$3
shift 3
# gcloud separates parameters with commas unless told otherwise; values may hold commas.
parameters='^~|~^'
separator=''
while [ "$#" -gt 0 ] && [ "$1" != -- ]; do
  case $1 in
  [a-z]*=*) ;;
  *)
    echo "launch: a parameter is NAME=VALUE, got '$1' (options of gcloud come after --)" >&2
    exit 2
    ;;
  esac
  parameters+=$separator$1
  separator='~|~'
  shift
done
if [ "$#" -gt 0 ]; then shift; fi
command -v gcloud >/dev/null || {
  echo "launch: gcloud is not installed: cloud.google.com/sdk/docs/install" >&2
  exit 1
}
exec gcloud dataflow flex-template run "$job" --template-file-gcs-location "$template" \
  --region "$region" --parameters "$parameters" "$@"
