"""What a person runs besides `pulumi`: the `fleet` command."""
