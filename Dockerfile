# One image for every process: RUN_COMMAND says which one a container is. It holds a name of the Procfile (web, engine,
# worker, small, http, retry, beat, flower) or the words of a haulier command ("jobs first_time", "db upgrade").
FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir --root-user-action ignore --prefix /installed --constraint constraints.txt .

FROM python:3.13-slim
COPY --from=build /installed /usr/local
RUN useradd --system --user-group --create-home --home-dir /home/haulier haulier \
    && install -d -o haulier -g haulier /data
USER haulier
WORKDIR /home/haulier
ENV PYTHONUNBUFFERED=1 HAULIER_HOST=0.0.0.0 RUN_COMMAND=web
EXPOSE 8600
# The words of RUN_COMMAND are split, its wildcards are not expanded.
CMD ["/bin/sh", "-c", "set -f; exec python -m app.runtime.role $RUN_COMMAND"]
