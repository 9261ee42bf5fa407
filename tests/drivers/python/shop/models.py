"""Tables of the Django suite."""

from django.db import models


class Author(models.Model):
    name = models.CharField(max_length=100)


class Tag(models.Model):
    name = models.CharField(max_length=100, unique=True)


class Article(models.Model):
    title = models.CharField(max_length=100)
    hits = models.IntegerField(default=0)
    author = models.ForeignKey(Author, models.CASCADE, related_name="articles")
    tags = models.ManyToManyField(Tag)
    created = models.DateTimeField(auto_now_add=True)
