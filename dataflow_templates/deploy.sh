#!/usr/bin/env bash
# Builds the image of this checkout with Cloud Build and writes the template file that names it.
#   dataflow_templates/deploy.sh IMAGE TEMPLATE [option of gcloud builds submit ...]
#   dataflow_templates/deploy.sh us-central1-docker.pkg.dev/my-project/c4/c4:1 gs://my-bucket/c4.json
set -euo pipefail
if [ "$#" -lt 2 ]; then
  sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
image=$1 template=$2
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case $template in
gs://*/*) ;;
*)
  echo "deploy: the template file must be gs://BUCKET/NAME.json, got '$template'" >&2
  exit 2
  ;;
esac
command -v gcloud >/dev/null || {
  echo "deploy: gcloud is not installed: cloud.google.com/sdk/docs/install" >&2
  exit 1
}
# Says what is wrong with the image's name, or with the metadata, before anything is uploaded.
python3 -m dataflow_templates.spec --image "$image" >/dev/null
exec gcloud builds submit --config dataflow_templates/cloudbuild.yaml \
  --substitutions "_IMAGE=$image,_TEMPLATE=$template" "$@" .
