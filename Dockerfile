# Two stages. The first checks every package against the hashed lock; none needs a compiler. The second gets the
# environment and the source, runs as nobody in particular, and has no test tools. Its commands are tested (tests/deploy);
# as an image it is untested.

FROM python:3.13.14-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN ["python", "-m", "venv", "/opt/millrace"]
WORKDIR /srv/millrace
COPY requirements/build.txt requirements/lock.txt requirements/
RUN ["/opt/millrace/bin/pip", "install", "--require-hashes", "-r", "requirements/build.txt"]
RUN ["/opt/millrace/bin/pip", "wheel", "--require-hashes", "--no-build-isolation", "--wheel-dir", "/wheels", "-r", "requirements/lock.txt"]
COPY . .
# From those wheels and nowhere else: what Millrace itself needs, without the tools of development.
RUN ["/opt/millrace/bin/pip", "install", "--no-index", "--find-links", "/wheels", "--no-build-isolation", "--editable", ".[rocksdb]"]
# Now and once: no process may write here later, and every start would compile all of it.
RUN ["/opt/millrace/bin/python", "-m", "compileall", "-q", "."]

FROM python:3.13.14-slim-trixie
RUN ["useradd", "--system", "--uid", "10001", "--user-group", "--home-dir", "/var/lib/millrace", "--shell", "/usr/sbin/nologin", "millrace"]
# A new volume takes owner and mode of the directory it is mounted on.
RUN ["install", "--directory", "--owner=millrace", "--group=millrace", "--mode=0700", "/var/lib/millrace", "/var/lib/millrace/staging", "/var/lib/millrace/cache"]
COPY --from=build /opt/millrace /opt/millrace
COPY --from=build /srv/millrace /srv/millrace
ENV PATH=/opt/millrace/bin:$PATH PYTHONDONTWRITEBYTECODE=1 MILLRACE_HOME=/var/lib/millrace HOST=0.0.0.0 PORT=8080
# A container listens for every client that its port is published to, and there are no keys: publish it to 127.0.0.1, or
# to a proxy that knows its users.
ENV MILLRACE_WEB__ALLOW_ANONYMOUS=true
WORKDIR /srv/millrace
USER millrace
EXPOSE 8080
CMD ["gunicorn", "--config", "python:app.gunicorn_conf", "app.wsgi:application"]
