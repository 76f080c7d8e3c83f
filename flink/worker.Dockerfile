# The Python workers of flink/session-cluster.yaml, and the launcher. From the repository's root:
#   docker build --file flink/worker.Dockerfile --tag REGISTRY/c4-worker:TAG .
FROM python:3.11-slim
WORKDIR /opt/c4
COPY pyproject.toml setup.py README.md LICENSE ./
COPY c4_filters c4_filters
COPY model model
COPY pipelines pipelines
# Launcher and workers are to have the same versions: build one image for both.
RUN pip install --no-cache-dir '.[gcp,aws]' && c4 build --help >/dev/null
# The runner for Flink, which the launcher sends with each job: put its jar beside this file.
COPY flink/*.jar /opt/c4/flink/
USER nobody
ENTRYPOINT ["c4"]
